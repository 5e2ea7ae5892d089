//go:build grpc133

// For the grpc-go of Debian 12, 1.33, which has no NewClient.
package main

import "google.golang.org/grpc"

func dial(target string) (*grpc.ClientConn, error) {
	return grpc.Dial(target, grpc.WithInsecure())
}
