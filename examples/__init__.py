"""One idea per folder; each has an app, a client script and a README whose commands are run by the tests."""
