//! What masters and region servers write down in the coordinator and say to each other: records, paths, the catalog and the gRPC services.
