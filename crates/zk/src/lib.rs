//! The ZooKeeper client protocol: jute records and an async session client.
