"""What the kernels are asked on a real GPU, and what is true, in float64.

In: how much time there is. Out: questions with numpy arrays, and a judgement of the answers. Pure;
the same kinds of question that the kernels are asked on a processor in tests/cuda.
"""

from typing import Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from jetson_cluster import codebook

STORED = ("float16", "float32")
FRAMES = ((1, 299, 299), (3, 299, 299), (2, 224, 224), (1, 1, 1), (5, 1, 1), (3, 31, 33),
          (4, 5, 1025), (2, 1025, 1))
MOST_FRAMES = (65535, 1, 3)


class Question(NamedTuple):
    """Which centroids are nearest to which rows."""

    group: str  # what is put to the test
    embeddings: np.ndarray  # float32 [n, D], raw
    centroids: np.ndarray  # float32 [k, D]
    stored: str  # how the GPU keeps the centroids
    neighbours: int = 4
    # int [N]: each row asked about is one of the n. So a large N has a truth that can be had, and
    # rows that are the same must get the same answer, to the last bit.
    rows: Optional[np.ndarray] = None
    again: Tuple[int, ...] = ()  # rows that alone, and shifted in memory, must get the same answer
    ties: bool = False  # some centroids are equal

    @property
    def count(self) -> int:
        return len(self.embeddings) if self.rows is None else len(self.rows)

    @property
    def name(self) -> str:
        return "%s: %d x %d, k %d, %s, nearest %d" % (
            self.group, self.count, self.embeddings.shape[1], len(self.centroids), self.stored,
            min(self.neighbours, len(self.centroids)))


def questions(quick: bool) -> Iterator[Question]:
    """Every question, the same ones every time; `quick` leaves out what a processor is slow at."""
    generator = np.random.RandomState(20)
    for make in (_shapes, _large):
        for question in make(generator, quick):
            yield question
    for rows in (3, 40):  # one for each of the two kernels
        for stored in STORED:
            for make in (_company, _neighbours, _equal, _long, _near_ties, _zero, _magnitudes,
                         _not_finite):
                for question in make(generator, rows, stored):
                    yield question
    for question in _full_of_ties(generator, 20 if quick else 300):
        yield question


def frame_shapes(quick: bool) -> List[Tuple[int, int, int]]:
    """(count, height, width) of frames to turn into planes."""
    return list(FRAMES) + ([] if quick else [MOST_FRAMES, (64, 299, 299)])


def frames(shape: Tuple[int, int, int]) -> np.ndarray:
    """Random frames uint8 [count, height, width, 3]."""
    return np.random.RandomState(sum(shape)).randint(0, 256, shape + (3,)).astype(np.uint8)


def repeated(different: int, count: int) -> np.ndarray:
    """int [count]: which of `different` rows each of many is."""
    return np.arange(count) % different


def _typical(generator, rows, k, dimension):
    """Rows of any length, as a network makes them, and centroids shorter than 1, as of k-means."""
    centroids = codebook.normalise(generator.randn(k, dimension).astype(np.float32)) * 0.8
    return (np.abs(generator.randn(rows, dimension)) * 3).astype(np.float32), centroids


def _shapes(generator, quick):
    dimensions = (5, 77, 768) if quick else (1, 3, 4, 5, 33, 77, 768, 1280, 2047, 2048, 4095, 4096)
    sizes = ((1, 1), (1, 2), (2, 3), (17, 129), (65, 200)) if quick else (
        (1, 1), (1, 2), (1, 512), (2, 3), (7, 127), (15, 4), (16, 129), (17, 128), (33, 512),
        (63, 31), (64, 32), (65, 513), (129, 1000))
    for dimension in dimensions:
        for rows, k in sizes:
            for stored in STORED:
                yield Question("shapes", *_typical(generator, rows, k, dimension), stored=stored)


def _large(generator, quick):
    sizes = ((1, 4096, 77), (3, 33, 4096), (1000, 3, 5)) if quick else (
        (1, 4096, 4096), (16, 4096, 4096), (4096, 4096, 4096), (4097, 513, 2047), (65535, 3, 5),
        (65536, 4096, 64), (65536, 512, 2048))
    for rows, k, dimension in sizes:
        for stored in STORED:
            # Of 61, so that one row stands in every place of a tile of 64.
            embeddings, centroids = _typical(generator, min(rows, 61), k, dimension)
            yield Question("large", embeddings, centroids, stored,
                           rows=repeated(len(embeddings), rows))


def _company(generator, rows, stored):
    embeddings, centroids = _typical(generator, rows, 300, 36)
    yield Question("alone, and shifted in memory", embeddings, centroids, stored,
                   again=(0, 1, rows - 1))


def _neighbours(generator, rows, stored):
    embeddings, centroids = _typical(generator, rows, 150, 33)
    for neighbours in (1, 2, 3):
        yield Question("fewer neighbours", embeddings, centroids, stored, neighbours)


def _equal(generator, rows, stored):
    embeddings, centroids = _typical(generator, rows, 6, 40)
    yield Question("equal centroids", embeddings, centroids[np.arange(400) % 6], stored, ties=True)


def _long(generator, rows, stored):
    # Centroids about 1000 long, 60 of them within 0.05 of each other: |c|^2 is a million, of which
    # float32 keeps steps of 0.06.
    embeddings = generator.randn(rows, 300).astype(np.float32)
    middle = codebook.normalise(generator.randn(1, 300).astype(np.float32))
    lengths = np.concatenate([1000 + 0.05 * generator.rand(60), 1500 + 1000 * generator.rand(100)])
    yield Question("small gaps between long vectors", embeddings,
                   (middle * generator.permutation(lengths)[:, None]).astype(np.float32), stored,
                   ties=True)


def _near_ties(generator, rows, stored):
    # All within 0.002 of the rows, in steps that a product of about 1 cannot see.
    direction = generator.randn(1, 100)
    embeddings = (direction * 2.0 ** np.arange(-20, rows - 20)[:, None]).astype(np.float32)
    offsets = codebook.normalise(generator.randn(100, 100).astype(np.float32))
    radii = generator.permutation(0.001 + 0.00001 * np.arange(100))[:, None]
    centroids = (direction / np.linalg.norm(direction) + offsets * radii).astype(np.float32)
    yield Question("more near-ties than candidates", embeddings, centroids, stored, ties=True)


def _zero(generator, rows, stored):
    embeddings, centroids = _typical(generator, rows, 90, 70)
    embeddings[::2] = 0
    yield Question("rows of zeros", embeddings,
                   centroids * np.linspace(2, 0.5, 90, dtype=np.float32)[:, None], stored)
    centroids[::3] = 0
    yield Question("centroids of zeros", embeddings, centroids, stored, ties=True)


def _magnitudes(generator, rows, stored):
    embeddings, centroids = _typical(generator, rows, 90, 70)
    for power in (20, 37, -24, -36):
        yield Question("rows of magnitude 1e%d" % power,
                       (embeddings * np.float64(10) ** power).astype(np.float32), centroids, stored)


def _not_finite(generator, rows, stored):
    embeddings, centroids = _typical(generator, rows, 90, 70)
    embeddings[0, 5], embeddings[1, 0] = np.nan, np.inf
    embeddings[-2:, 69] = [-np.inf, 1]
    yield Question("rows that are not finite", embeddings, centroids, stored)


def _full_of_ties(generator, count):
    """Few values, so that ties, duplicates, zero rows and zero centroids are common."""
    values = ([0, 1], [-1, 0, 1], [0, 0, 0, 0, 0, 3], [-2, -1, 0.5, 1, 60])
    for number in range(count):
        rows, k, dimension = (int(generator.randint(1, most)) for most in (71, 151, 41))
        few = values[number % len(values)]
        embeddings = generator.choice(few, (rows, dimension)) * (1, 1e-4, 1e9)[number % 3]
        centroids = generator.choice(few, (k, dimension)) * (1, 0.125, 100)[number // 3 % 3]
        yield Question("full of ties", embeddings.astype(np.float32), centroids.astype(np.float32),
                       STORED[number % 2], 1 + number % 4, ties=True)


def true_distances(embeddings: np.ndarray, held: np.ndarray) -> np.ndarray:
    """float64 [n, k], of finite rows scaled to length 1 in float64, to centroids as stored."""
    rows = embeddings.astype(np.float64)
    rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-300)
    lengths = np.sqrt((rows ** 2).sum(axis=1, keepdims=True))
    rows /= np.where(lengths > 0, lengths, 1)
    held = held.astype(np.float64)
    terms = (rows ** 2).sum(axis=1)[:, None] + (held ** 2).sum(axis=1)[None, :]
    squared = terms - 2 * rows.dot(held.T)
    # The product keeps 16 digits of the terms; where the distance is small against them it is
    # measured from the differences.
    for row, near in enumerate(squared < 1e-6 * terms):
        squared[row, near] = ((rows[row] - held[near]) ** 2).sum(axis=1)
    return np.sqrt(squared)


def judge(question: Question, index: np.ndarray, distance: np.ndarray) -> Tuple[str, float]:
    """(what is wrong with an answer, or ""; the largest error as a share of what is allowed).

    `index` int32 and `distance` float32 are [N, neighbours]. Allowed: 2.5e-7 is what rounding the
    row's numbers to float32 can move a distance, 2e-7 of the distance what summing 4096 squares and
    the root can lose.
    """
    if question.rows is not None:
        for row in range(len(question.embeddings)):
            same = question.rows == row
            if not (_equal_bits(index[same]) and _equal_bits(distance[same])):
                return "rows that are the same get different answers", np.inf
        first = [int(np.argmax(question.rows == row)) for row in range(len(question.embeddings))]
        index, distance = index[first], distance[first]
    neighbours = index.shape[1]
    if ((index < 0) | (index >= len(question.centroids))).any():
        return "an index that no centroid has", np.inf
    if any(len(set(row)) < neighbours for row in index.tolist()):
        return "the same centroid twice", np.inf
    finite = np.isfinite(question.embeddings).all(axis=1)
    if (index[~finite] != np.arange(neighbours)).any() or not np.isnan(distance[~finite]).all():
        return "a row that is not finite gets other than the lowest indices and NaN", np.inf
    held = question.centroids.astype(question.stored)
    return _judge_finite(question, held, index[finite], distance[finite],
                         true_distances(question.embeddings[finite], held))


def _judge_finite(question, held, index, distance, truth):
    chosen = np.take_along_axis(truth, index, axis=1)
    best = np.sort(truth, axis=1)[:, :index.shape[1]]
    leeway = 2.5e-7 + 2e-7 * best
    # NaN where a number is due compares as no error at all: asked for by name.
    error = np.where(np.isnan(distance), np.inf, np.abs(distance - chosen) / leeway)
    used = float(max(error.max(), ((chosen - best) / leeway).max())) if error.size else 0.0
    if (chosen > best + leeway).any():
        row, place = np.argwhere(chosen > best + leeway)[0]
        return "row %d, place %d: centroid %d at %.9g, where one is at %.9g" % (
            row, place, index[row, place], chosen[row, place], best[row, place]), used
    if (error > 1).any():
        row, place = np.argwhere(error > 1)[0]
        return "row %d, place %d: distance %.9g, which is %.9g" % (
            row, place, distance[row, place], chosen[row, place]), used
    if (np.diff(distance, axis=1) < 0).any():
        return "a nearer one stands behind a farther one", used
    if question.ties and _passed_over(held, index):
        return "of equal centroids, a higher index stands ahead of a lower one", used
    return "", used


def _equal_bits(answers: np.ndarray) -> bool:
    """Whether all rows are the same, to the last bit."""
    return len({row.tobytes() for row in answers}) <= 1


def _passed_over(held: np.ndarray, index: np.ndarray) -> bool:
    """Whether some row has a centroid and not, ahead of it, an equal one of lower index."""
    for number in np.unique(index):
        lower = set(np.flatnonzero((held[:number] == held[number]).all(axis=1)))
        if lower and any(not lower <= set(row[:list(row).index(number)])
                         for row in index[(index == number).any(axis=1)].tolist()):
            return True
    return False
