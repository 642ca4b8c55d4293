package apierror

import (
	"cmp"
	"context"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Complete returns err as an error whose status carries a reason. For an InvalidArgument whose message begins with the
// name of a field of the request, as "ttl is 5s; ..." does, the status also names that field. The request may be nil.
func Complete(err error, request proto.Message) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	var details []protoadapt.MessageV1
	if reason := reasonOf[s.Code()]; reason != "" && infoOf(s) == nil {
		details = append(details, &errdetails.ErrorInfo{Domain: Domain, Reason: reason})
	}
	if request != nil && hasBadRequest(s) {
		if whole := qualified(s, request); !proto.Equal(whole.Proto(), s.Proto()) {
			s, err = whole, whole.Err()
		}
	}
	if field := cmp.Or(namedField(err, s, request), invalidField(s, request)); field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: s.Message()},
		}})
	}
	if len(details) == 0 {
		return err
	}
	return withDetails(s, details...).Err()
}

// namedField returns the path of the field that [InField] has put into an error, or "". A decision on a request that
// has a list of names does not know that.
func namedField(err error, s *status.Status, request proto.Message) string {
	name := FieldOf(err)
	if s.Code() != codes.InvalidArgument || request == nil || name == "" || hasBadRequest(s) {
		return ""
	}
	return cmp.Or(pathIn(request, name), pathIn(request, name+"s"))
}

// withDetails adds details, and returns the status unchanged if they cannot be encoded.
func withDetails(s *status.Status, details ...protoadapt.MessageV1) *status.Status {
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s
}

// leadingField matches what looks like the name of a field at the beginning of a message.
var leadingField = regexp.MustCompile(`^[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*\b`)

// invalidField returns the path of the field that a status is about, or "".
func invalidField(s *status.Status, request proto.Message) string {
	name := leadingField.FindString(s.Message())
	if s.Code() != codes.InvalidArgument || request == nil || name == "" || hasBadRequest(s) {
		return ""
	}
	return pathIn(request, name)
}

func hasPath(message protoreflect.MessageDescriptor, path string) bool {
	first, rest, more := strings.Cut(path, ".")
	field := message.Fields().ByName(protoreflect.Name(first))
	switch {
	case field == nil:
		return false
	case !more:
		return true
	}
	return field.Kind() == protoreflect.MessageKind && hasPath(field.Message(), rest)
}

func hasBadRequest(s *status.Status) bool {
	for _, detail := range s.Details() {
		if _, ok := detail.(*errdetails.BadRequest); ok {
			return true
		}
	}
	return false
}

// Unary is an interceptor that completes the errors of unary calls. It belongs outside of all others.
func Unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, request)
	message, _ := request.(proto.Message)
	return answer, Complete(err, message)
}

// Stream is an interceptor that completes the errors of streams. It belongs outside of all others.
func Stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	first := &firstRequest{ServerStream: stream}
	return Complete(handler(server, first), first.request)
}

// firstRequest remembers the first message of a stream. A handler reads messages in one goroutine; it has returned when
// the message is used.
type firstRequest struct {
	grpc.ServerStream
	request proto.Message
}

// RecvMsg implements grpc.ServerStream.
func (s *firstRequest) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if s.request == nil && err == nil {
		s.request, _ = m.(proto.Message)
	}
	return err
}
