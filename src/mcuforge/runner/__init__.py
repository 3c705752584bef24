"""Measures firmware on boards: the protocol, a board in use, data sets, and MLPerf Tiny's modes."""
