"""An app that stores arrays once and passes references around instead."""
