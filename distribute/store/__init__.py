"""All SQL of distribute: what the web writes (submission) and reads (queries), and the dispatcher's part (dispatch).

Every function takes a connection, within a transaction of contract.database.Database.
"""
