"""The site: its configuration, its pages, and what fills them. Nothing here runs a model or decides a claim."""
