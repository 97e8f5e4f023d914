"""Pure document-to-document steps that bring old files to the present version."""
