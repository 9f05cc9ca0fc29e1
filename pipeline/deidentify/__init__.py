"""De-identification: recipes read strictly, compiled, applied to bytes, and a second look at what comes out."""
