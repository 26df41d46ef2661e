//! Rewrites of the graph: folding, dead code, common subexpressions, pattern fusion.
