"""The corpus: every image of an archive, embedded once and kept for everything the ground does.

In: folders, lists and globs of images, and a model. Out: a folder of Parquet shards, read back as a
`Corpus`. `shards` is how it stands on disk, `reading` what others see of it, `listing` which
files are meant, `looking` one file to pixels and facts, `embedding` many files to rows, `many` the
same on a Dask cluster, `storing` rows to shards, `losses` what would drop out, `making` a whole
run.
"""

from jetson_cluster.ground.corpus.making import embed
from jetson_cluster.ground.corpus.reading import Corpus, is_corpus, read

__all__ = ["Corpus", "embed", "is_corpus", "read"]
