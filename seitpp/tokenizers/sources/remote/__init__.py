"""Images that stay where they are: in a bucket, or behind a web server."""
