package apierror

import (
	"errors"
	"regexp"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// fieldError is an error about a field of a request. It has the text of the error that it wraps.
type fieldError struct {
	field string
	error
}

func (e *fieldError) Unwrap() error { return e.error }

// InField returns err as one about a field, such as "weight" or "rules[2]". If err is about a field already, that is a
// part of this one. The text is that of err. It returns nil if err is nil.
func InField(field string, err error) error {
	if err == nil {
		return nil
	}
	if part, ok := errors.AsType[*fieldError](err); ok {
		field += "." + part.field
	}
	return &fieldError{field, err}
}

// FieldOf returns the field that [InField] has put into an error, or "".
func FieldOf(err error) string {
	if of, ok := errors.AsType[*fieldError](err); ok {
		return of.field
	}
	return ""
}

// Invalid returns err as an error with the status InvalidArgument, which names the field that [InField] has put into
// it. [Complete] adds the field of the request that has that field.
func Invalid(err error) error {
	s := status.New(codes.InvalidArgument, err.Error())
	field := FieldOf(err)
	if field == "" {
		return s.Err()
	}
	return withDetails(s, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: field, Description: err.Error()},
	}}).Err()
}

// index matches the index in an element of a path.
var index = regexp.MustCompile(`\[\d+\]`)

// pathIn returns the whole path of a field of a request that a message names, or "" if there is none. Requests such as
// UpdateDomainRequest hold the resource in a field; messages name the resource's fields.
func pathIn(request proto.Message, name string) string {
	message, plain := request.ProtoReflect().Descriptor(), index.ReplaceAllString(name, "")
	if hasPath(message, plain) {
		return name
	}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if field.Kind() == protoreflect.MessageKind && !field.IsList() && hasPath(field.Message(), plain) {
			return string(field.Name()) + "." + name
		}
	}
	return ""
}

// qualified returns a status whose fields are whole paths in a request.
func qualified(s *status.Status, request proto.Message) *status.Status {
	p := s.Proto()
	for i, detail := range p.GetDetails() {
		var bad errdetails.BadRequest
		if detail.UnmarshalTo(&bad) != nil {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			if whole := pathIn(request, v.GetField()); whole != "" {
				v.Field = whole
			}
		}
		if again, err := anypb.New(&bad); err == nil {
			p.Details[i] = again
		}
	}
	return status.FromProto(p)
}
