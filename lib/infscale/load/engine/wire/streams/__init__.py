"""Replies that bring several messages: what a message is, and how HTTP/1.1 and HTTP/2 carry it."""
