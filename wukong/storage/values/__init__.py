"""Value stores: where values that are too large to ride with their record are kept, by name, and never looked into."""
