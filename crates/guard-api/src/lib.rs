//! The control interface: IDL, wire types, framing, a blocking client.
