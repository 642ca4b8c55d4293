package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/token"
)

// repeatFor is how long a call of unknown outcome is repeated: an election takes a second or two.
const repeatFor = 15 * time.Second

// NewRequestID returns a random UUID, for the request_id of a call that makes something.
func NewRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// JoinToken returns the token of an invitation or of a join token that was made from the SHA-256 of a secret: it joins
// the public part of the response with the secret, which has 32 bytes. Its errors contain no part of the secret.
func JoinToken(publicPart string, secret []byte) (string, error) {
	return token.Join(publicPart, secret)
}

// repeatUnary gives a request that makes something an id, unless the caller has set one, and repeats the call while its
// outcome is not known: the member that answers next makes the object, or answers with what the first call made. The
// client makes the secret of a token too, which a member would return only once.
func repeatUnary(
	ctx context.Context, method string, request, response any, conn *grpc.ClientConn, call grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	message, field := idField(request)
	if field == nil || message.Get(field).String() == "" && path.Base(method) == "RegisterInstance" {
		// An instance is registered under its address, so that a repeated registration makes no other one.
		return call(ctx, method, request, response, conn, options...)
	}
	if message.Get(field).String() == "" {
		message = proto.Clone(message.Interface()).ProtoReflect()
		message.Set(field, protoreflect.ValueOfString(NewRequestID()))
		join := chooseSecret(message)
		request, call = message.Interface(), joining(call, join)
	}
	begun, retry := time.Now(), newBackoff()
	var unknown error
	for {
		err := call(ctx, method, request, response, conn, options...)
		switch {
		case err == nil || ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded:
			return err
		case errors.Is(err, ErrUnknownOutcome):
			unknown = err
		case unknown == nil || !transient(err) && !behind(err):
			return err
		}
		if time.Since(begun) > repeatFor || pause(ctx, delay(err, retry)) != nil {
			return unknown
		}
	}
}

// behind reports whether a member can have refused a repeated call because it has not applied yet what the member had
// that received the call before. The refusal says nothing of what became of that call.
func behind(err error) bool {
	code := status.Code(err)
	return code == codes.PermissionDenied || code == codes.Unauthenticated
}

// chooseSecret sets the digest of a new secret in a request for a token that has none, and returns the function that
// completes the response. For other requests it returns nil.
func chooseSecret(request protoreflect.Message) func(response any) error {
	digest := request.Descriptor().Fields().ByName("secret_sha256")
	if digest == nil || request.Has(digest) {
		return nil
	}
	secret := token.NewSecret()
	sum := secret.Digest()
	request.Set(digest, protoreflect.ValueOfBytes(sum[:]))
	return func(response any) error {
		m := response.(proto.Message).ProtoReflect()
		whole := m.Descriptor().Fields().ByName("token")
		if m.Get(whole).String() != "" { // by a member of an earlier version
			return nil
		}
		public := ""
		switch made := response.(type) {
		case *ententev1.CreateInvitationResponse:
			public = made.GetInvitation().GetPublicPart()
		case *ententev1.CreateJoinTokenResponse:
			public = made.GetJoinToken().GetPublicPart()
		case *ententev1.CreateAgentTokenResponse:
			public = made.GetAgentToken().GetPublicPart()
		}
		text, err := token.Join(public, secret[:])
		if err == nil {
			m.Set(whole, protoreflect.ValueOfString(text))
		}
		return err
	}
}

// joining returns call with join after it, if there is one.
func joining(call grpc.UnaryInvoker, join func(any) error) grpc.UnaryInvoker {
	if join == nil {
		return call
	}
	return func(
		ctx context.Context, method string, request, response any, conn *grpc.ClientConn, options ...grpc.CallOption,
	) error {
		err := call(ctx, method, request, response, conn, options...)
		if err == nil {
			err = join(response)
		}
		return err
	}
}

// idField returns a request and its field for the id of a call, or nil if it has none.
func idField(request any) (protoreflect.Message, protoreflect.FieldDescriptor) {
	m, ok := request.(proto.Message)
	if !ok {
		return nil, nil
	}
	field := m.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if field == nil || field.Kind() != protoreflect.StringKind {
		return nil, nil
	}
	return m.ProtoReflect(), field
}
