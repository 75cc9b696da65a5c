"""Other projects' file formats, read and written without their libraries."""
