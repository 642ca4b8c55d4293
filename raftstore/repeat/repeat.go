package repeat

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

const (
	// Window is how long a call can be repeated.
	Window = time.Hour
	// sets and setSize bound the calls of a caller: 4096 sets are rarely full before one has 10,000 calls in an hour.
	sets, setSize = 4096, 8
	// Field is the name of the field of a request that has the id.
	Field = "request_id"
)

var (
	made = raftstore.NewTable[*statev1.MadeRequests]("made_requests")

	uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	// errMade ends a transaction whose call was made on another member meanwhile.
	errMade = status.Error(codes.Aborted, "a call with the same request_id was made at the same time: repeat this one")
)

// Made is a call that made something.
type Made struct {
	// Name is what the call passed to [Generated], or "".
	Name string
	// Revision is where it was made, or a later one at which its row was last written.
	Revision raftstore.Revision
	Time     time.Time
}

// Call is a call with a request id. A nil Call, that of a request without one, does nothing.
type Call struct {
	store *raftstore.Store
	now   func() time.Time

	key         string
	id, request []byte
	call        string

	mu   sync.Mutex
	name string
}

// New returns the call that a request belongs to, or nil if the request has no id. The caller is the text that names
// who makes the call. An error means that the id is malformed, and has a status.
func New(
	store *raftstore.Store, now func() time.Time, caller, method string, request proto.Message,
) (*Call, error) {
	field := idField(request)
	if field == nil {
		return nil, nil
	}
	id := strings.ToLower(request.ProtoReflect().Get(field).String())
	switch {
	case id == "":
		return nil, nil
	case !uuid.MatchString(id):
		return nil, status.Errorf(codes.InvalidArgument, "request_id %q is not a UUID: make a new random one for each "+
			"call, or leave it out", clip(id))
	}
	plain := proto.Clone(request)
	plain.ProtoReflect().Clear(field)
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(plain)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the request cannot be encoded: %v", err)
	}
	by, of, digest := sha256.Sum256([]byte(caller)), sha256.Sum256([]byte(method+" "+id)), sha256.Sum256(content)
	return &Call{
		store: store, now: now, call: rand.Text()[:12], id: of[:], request: digest[:],
		key: fmt.Sprintf("%s/%03x", hex.EncodeToString(by[:16]), binary.BigEndian.Uint16(of[:])%sets),
	}, nil
}

// idField returns the field of a request that has its id, or nil.
func idField(request proto.Message) protoreflect.FieldDescriptor {
	field := request.ProtoReflect().Descriptor().Fields().ByName(Field)
	if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
		return nil
	}
	return field
}

// Earlier returns what an earlier call with the same id has made, or nil if there is none in the state that r reads. An
// error with a status means that the earlier call had another request.
func (c *Call) Earlier(r raftstore.Reader) (*Made, error) {
	if c == nil {
		return nil, nil
	}
	row, _, err := made.Get(r, c.key)
	if err != nil {
		return nil, err
	}
	earlier := c.find(row.Value)
	switch {
	case earlier == nil || earlier.GetCall() == c.call:
		return nil, nil
	case !slices.Equal(earlier.GetRequestSha256(), c.request):
		return nil, apierror.New(codes.InvalidArgument, apierror.RequestReused, "request_id was used at %s for "+
			"another request, and nothing is changed by this one: make a new UUID for each call, and use it again "+
			"only to repeat that call", earlier.GetTime().AsTime().Format(time.RFC3339))
	}
	return &Made{Name: earlier.GetName(), Revision: row.Revision, Time: earlier.GetTime().AsTime()}, nil
}

// find returns the call with the same id among those of a row, or nil.
func (c *Call) find(row *statev1.MadeRequests) *statev1.MadeRequest {
	for _, r := range row.GetRequests() {
		if slices.Equal(r.GetIdSha256(), c.id) && counts(r, c.now()) {
			return r
		}
	}
	return nil
}

// counts reports whether a call can still be repeated. One from the future was written by a clock that was wrong.
func counts(r *statev1.MadeRequest, now time.Time) bool {
	return now.Sub(r.GetTime().AsTime()).Abs() < Window
}

type (
	callKey    struct{}
	earlierKey struct{}
)

// Context returns the context for the handler of the call, whose transactions write the row. It replaces a
// [raftstore.Companion] of ctx by one that runs both.
func (c *Call) Context(ctx context.Context) context.Context {
	if c == nil {
		return ctx
	}
	return raftstore.JoinCompanion(context.WithValue(ctx, callKey{}, c), c.companion)
}

func (c *Call) companion(tx *raftstore.Tx, writes bool) error {
	row, _, err := made.Get(tx, c.key)
	if err != nil {
		return err
	}
	switch earlier := c.find(row.Value); {
	case earlier == nil:
	case earlier.GetCall() == c.call:
		return nil
	default:
		return errMade
	}
	if !writes {
		return nil
	}
	c.mu.Lock()
	name := c.name
	c.mu.Unlock()
	now, all := c.now(), &statev1.MadeRequests{}
	for _, r := range row.Value.GetRequests() {
		if counts(r, now) {
			all.Requests = append(all.Requests, r)
		}
	}
	all.Requests = append(all.Requests, &statev1.MadeRequest{
		IdSha256: c.id, RequestSha256: c.request, Time: timestamppb.New(now), Call: c.call, Name: name,
	})
	all.Requests = all.Requests[max(0, len(all.Requests)-setSize):]
	return made.Put(tx, c.key, all)
}

// Generated records the name of the object that a call is about to make, if the request does not have it. It is called
// before the transaction. Without a request id it does nothing.
func Generated(ctx context.Context, name string) {
	if c, ok := ctx.Value(callKey{}).(*Call); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.name = name
	}
}

// Answering returns the context for the handler of a call that was made earlier.
func Answering(ctx context.Context, earlier *Made) context.Context {
	ctx = context.WithValue(ctx, earlierKey{}, earlier)
	return raftstore.WithCompanion(ctx, func(_ *raftstore.Tx, writes bool) error {
		if writes {
			return errors.New("a repeated call would have made something again: report this defect")
		}
		return nil
	})
}

// Earlier returns what was made by the call that this one repeats, or nil if it repeats none. A handler that makes
// something calls it first, and answers with what was made.
func Earlier(ctx context.Context) *Made {
	earlier, _ := ctx.Value(earlierKey{}).(*Made)
	return earlier
}

// Gone returns the error of a repeated call whose object does not exist any more, and other errors unchanged.
func Gone(err error) error {
	if code := status.Code(err); code != codes.NotFound && code != codes.Aborted {
		return err
	}
	return status.Error(codes.FailedPrecondition, "the call with this request_id was made, and what it made is gone "+
		"since; use a new request_id to make it again")
}

func clip(s string) string {
	const enough = 40
	if len(s) > enough {
		return s[:enough] + "…"
	}
	return s
}
