//! The master: decides where regions live and runs the durable procedures.
