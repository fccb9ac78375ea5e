//! Golden bytes and hostile input.
