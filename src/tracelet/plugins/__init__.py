"""A folder that is looked into for plugins; put files of your own into `~/.tracelet/plugins`."""
