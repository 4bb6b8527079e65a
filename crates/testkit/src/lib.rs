//! Scripted peers, fake workers and simulated time for the tests.
