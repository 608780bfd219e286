"""Take a region out of service and bring it back, for an incident, a drill and a release."""

__version__ = "0.1.0"
