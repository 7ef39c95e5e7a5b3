"""`vidloop rate`: a page on which people rate clips, and what becomes of their votes.

questions   what is asked: questions for pairs, or a judge's rubric in its own words
items       what it is asked of: before and after of a round, or clips that a query names; gold items
database    a session's file: SQLite, every vote on the disk before the page says that it is kept
choose      which item a rater sees next
session     one rater's way through it: shown, answered, undone
keep        votes into the store, as immutable parts
status      how far it is, and whom to believe
videos      clips as every browser plays them
server      HTTP, a secret link for each rater
page/       the page itself
"""
