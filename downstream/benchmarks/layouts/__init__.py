"""Official files of data sets, as their authors publish them: a module a layout."""
