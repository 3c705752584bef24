"""Records of what was measured, and what people look at: summary, tables, figures."""
