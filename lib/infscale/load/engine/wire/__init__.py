"""Codecs without input and output: HTTP/1.1, HTTP/2 with gRPC, and TLS. Bytes in, bytes and finished requests out."""
