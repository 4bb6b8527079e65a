//! The Python extension module anyserve._core.
