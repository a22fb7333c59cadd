"""Advice from stored trials: for a payload, an arrival rate and a limit of response time, what to deploy.

``question`` is what is asked, ``arms`` what one run says of its arms, ``decision`` what all runs together say of a
choice, and ``lines`` the words. The rules, with their reasons, are in docs/decisions/0018-advice.md.
"""

from infscale.report.advice.arms import Evidence, evidence
from infscale.report.advice.lines import advise, load, save, table
from infscale.report.advice.question import CHOICES, PAYLOADS, STANDARD, Question

__all__ = ["CHOICES", "PAYLOADS", "STANDARD", "Evidence", "Question", "advise", "evidence", "load", "save", "table"]
