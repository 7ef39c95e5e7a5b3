"""Config: what a round is told. `recipe` composes the settings of all components, `load` reads a file of
them, `resolve` turns them into what the stages work with, once.
"""
