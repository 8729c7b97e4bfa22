"""The deep paths of the Tracelet documents, such as `tracelet.core.plugins`."""
