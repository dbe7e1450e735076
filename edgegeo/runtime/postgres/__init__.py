"""Galleries in PostgreSQL with pgvector: `pip install 'edgegeo[postgres]'` brings the client."""
