"""How the product's pages and plots look: one style, one canvas. Rooms that write pages share it."""
