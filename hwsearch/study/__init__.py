"""The search: ask, price, evaluate, tell. Accuracy and price meet here."""
