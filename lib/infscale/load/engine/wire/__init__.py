"""Protocol codecs without I/O: HTTP/1.1, HTTP/2 and gRPC, TLS."""
