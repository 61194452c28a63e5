"""Features in two dimensions, to look at: principal components, or t-SNE of the first fifty of them."""

from typing import Any, Literal

import numpy as np

Way = Literal["tsne", "pca"]
COMPONENTS = 50
"""principal components that t-SNE starts from: the rest is mostly noise, and takes time"""
_LEAST_ROWS = 5
"""that t-SNE is made of: fewer have no neighbourhoods"""


def feature_map(features: np.ndarray, way: Way, *, perplexity: float, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Give each row a place in the plane; rows are compared as by cosine, in their directions alone.

    Args:
        features: (n, d), n at least 2.
        way: "tsne", which keeps who is near whom, or "pca", which keeps the largest distances. Of fewer than five rows,
            and where all rows are the same, it is PCA.
        perplexity: of t-SNE, about how many neighbours a row has; at most a third of the rows.
        seed: of t-SNE.
    Returns: ((n, 2) float64, {"method", "explained_variance" of the two axes of PCA, "trustworthiness"}).
    Source: van der Maaten and Hinton 2008 (t-SNE); Venna and Kaski 2001 (trustworthiness).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness

    directions = features.astype(np.float64)
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    directions -= directions.mean(axis=0)
    rows, width = directions.shape
    if np.abs(directions).max() < 1e-9:  # a collapsed encoder; t-SNE would divide by its deviation
        return np.zeros((rows, 2)), {"method": "pca", "explained_variance": [0.0, 0.0], "trustworthiness": None}
    pca = PCA(min(COMPONENTS, rows, width), svd_solver="full")
    components = pca.fit_transform(directions)
    way = way if rows >= _LEAST_ROWS else "pca"
    told: dict[str, Any] = {"method": way}
    if way == "tsne":
        at_most = min(perplexity, (rows - 1) / 3)
        placed = TSNE(perplexity=at_most, init="pca", random_state=seed % 2**32).fit_transform(components)
        told["perplexity"] = at_most
    else:
        placed = np.pad(components[:, :2], ((0, 0), (0, max(0, 2 - components.shape[1]))))
        told["explained_variance"] = pca.explained_variance_ratio_[:2].tolist()
    neighbours = min(10, (rows - 1) // 2)
    told["trustworthiness"] = float(trustworthiness(directions, placed, n_neighbors=neighbours)) if neighbours else None
    return placed.astype(np.float64), told
