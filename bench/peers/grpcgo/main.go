// The bare grpc-go server that Headgate's transport is measured against: Envoy's ext_proc and rate limit methods,
// answered with constants, without parsing a message. Usage: grpcgo HOST:PORT; prints the address when it listens.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// rawCodec leaves messages as they are: what is measured is the transport.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// The first byte of a ProcessingRequest is the tag of the part of the exchange it is about; the answer says "go on".
var answers = map[byte][]byte{
	0x12: {0x0a, 0x00}, // request_headers
	0x22: {0x1a, 0x00}, // request_body
	0x3a: {0x32, 0x00}, // response_trailers
}

func process(_ any, stream grpc.ServerStream) error {
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if len(message) == 0 {
			continue
		}
		answer := answers[message[0]]
		if err := stream.SendMsg(&answer); err != nil {
			return err
		}
	}
}

func shouldRateLimit(
	_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
) (any, error) {
	var message []byte
	if err := decode(&message); err != nil {
		return nil, err
	}
	answer := []byte{0x08, 0x01} // overall_code: OK
	return &answer, nil
}

func main() {
	encoding.RegisterCodecV2(rawCodec{})
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(16<<20))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.ext_proc.v3.ExternalProcessor",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Process", Handler: process, ServerStreams: true, ClientStreams: true},
		},
	}, nil)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.ratelimit.v3.RateLimitService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "ShouldRateLimit", Handler: shouldRateLimit}},
	}, nil)
	fmt.Println(listener.Addr())
	log.Fatal(server.Serve(listener))
}
