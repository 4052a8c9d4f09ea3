"""``planish serve PKG``: a package that stays loaded and answers over a pipe; docs/serve.md has the protocol."""
