"""What a dashboard reads: whole columns of a study, kept and brought up to date, and details of single rows.

A study's trials are read once into columns; from then on only what has changed is. So a page over a million trials is
sorted, filtered and counted in memory, and a search that is running costs what its newest trials cost.
"""

from nasplat.storage.browsing.database import Database, StudyInfo
from nasplat.storage.browsing.frame import COLUMNS, REASONS, Frame
from nasplat.storage.browsing.frames import Frames
from nasplat.storage.browsing.totals import STATES, Totals

__all__ = ["COLUMNS", "REASONS", "STATES", "Database", "Frame", "Frames", "StudyInfo", "Totals"]
