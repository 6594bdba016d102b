"""Low-rank factorisation: one large layer as two or three small ones, where that measures faster."""
