"""What a gRPC stream costs the server: the lean transport against grpcio and against a bare grpc-go."""
