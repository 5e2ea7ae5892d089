"""The demo: real bars and a page of headlines through a real pair, a table and a fan chart."""
