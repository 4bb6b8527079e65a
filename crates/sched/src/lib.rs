//! The dispatcher: queues, credits and deadlines as a pure state machine.
