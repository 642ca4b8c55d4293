package relationship

import (
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
)

// settings are the paths of the fields of a relationship that an operator can change: those that the API marks with the
// option "setting", such as url, peer and peer.addresses. A row has them under the same names. [Parse] validates them.
var settings = settingsOf((*ententev1.Relationship)(nil).ProtoReflect().Descriptor(), "")

func settingsOf(m protoreflect.MessageDescriptor, prefix string) (paths []string) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if !proto.HasExtension(f.Options(), ententev1.E_Setting) {
			continue
		}
		path := prefix + string(f.Name())
		paths = append(paths, path)
		if f.Message() != nil && !f.IsList() {
			paths = append(paths, settingsOf(f.Message(), path+".")...)
		}
	}
	return paths
}

// copySetting copies the field with a path between a request, a row and an answer. A part of a message that neither
// side has is left out. If only from has it, to gets that part alone, which [Parse] judges.
func copySetting(to, from protoreflect.Message, path string) {
	whole, part, isPart := strings.Cut(path, ".")
	if !isPart {
		copyField(to, from, protoreflect.Name(whole))
		return
	}
	in, out := fieldOf(from, protoreflect.Name(whole)), fieldOf(to, protoreflect.Name(whole))
	if to.Has(out) || from.Has(in) {
		copyField(to.Mutable(out).Message(), from.Get(in).Message(), protoreflect.Name(part))
	}
}

func fieldOf(m protoreflect.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(name)
}

// copyField copies one field between messages of different types. Messages are copied field by field, by name, and an
// enumeration is a number in a row.
func copyField(to, from protoreflect.Message, name protoreflect.Name) {
	in, out := fieldOf(from, name), fieldOf(to, name)
	if !from.Has(in) {
		to.Clear(out)
		return
	}
	switch {
	case in.IsList():
		list, copied := from.Get(in).List(), to.NewField(out).List()
		for i := range list.Len() {
			copied.Append(convert(list.Get(i), in.Kind(), out.Kind()))
		}
		to.Set(out, protoreflect.ValueOfList(copied))
	case in.Message() != nil && in.Message() == out.Message():
		to.Set(out, protoreflect.ValueOfMessage(proto.Clone(from.Get(in).Message().Interface()).ProtoReflect()))
	case in.Message() != nil:
		to.Clear(out)
		copied := to.Mutable(out).Message()
		for i := range in.Message().Fields().Len() {
			copyField(copied, from.Get(in).Message(), in.Message().Fields().Get(i).Name())
		}
	default:
		to.Set(out, convert(from.Get(in), in.Kind(), out.Kind()))
	}
}

func convert(v protoreflect.Value, from, to protoreflect.Kind) protoreflect.Value {
	switch {
	case from == to:
		return v
	case to == protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(v.Int()))
	default:
		return protoreflect.ValueOfInt32(int32(v.Enum()))
	}
}

// FromRequest returns the row that a request for a new relationship describes, without what the server sets.
func FromRequest(in *ententev1.Relationship) (*statev1.Relationship, error) {
	row := &statev1.Relationship{TrustDomain: in.GetTrustDomain()}
	for _, path := range settings {
		if !strings.Contains(path, ".") {
			copySetting(row.ProtoReflect(), in.ProtoReflect(), path)
		}
	}
	switch in.GetState() {
	case ententev1.RelationshipState_RELATIONSHIP_STATE_UNSPECIFIED,
		ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE:
	case ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED:
		row.Suspended = true
	default:
		return nil, status.Errorf(
			codes.InvalidArgument,
			"state %d is not known; leave it out, or use active or suspended",
			in.GetState(),
		)
	}
	return row, nil
}

// CheckMask checks the names in an update mask.
func CheckMask(paths []string) error {
	for _, path := range paths {
		if !slices.Contains(settings, path) {
			return status.Errorf(codes.InvalidArgument, "update_mask names %s, which cannot be updated; these can: %s",
				Quote(path), strings.Join(slices.Sorted(slices.Values(settings)), ", "))
		}
	}
	return nil
}

// Apply changes the fields of a row that a checked update mask names, in the order of the mask.
func Apply(row *statev1.Relationship, paths []string, wanted *ententev1.Relationship) {
	for _, path := range paths {
		copySetting(row.ProtoReflect(), wanted.ProtoReflect(), path)
	}
	if row.GetHub() == nil {
		row.HubValidity = nil
	}
}

// Message returns a relationship as the API has it: the fields, and what the row has besides.
func Message(row *statev1.Relationship) *ententev1.Relationship {
	out := &ententev1.Relationship{
		TrustDomain: row.GetTrustDomain(), State: StateOf(row), Agreement: AgreementMessage(row),
		SuspendTime: row.GetSuspension().GetTime(), Suspender: row.GetSuspension().GetBy(),
		CreateTime: row.GetCreateTime(), Freshness: ValidityOf(row.GetValidity()).Shown().Freshness(),
		WebRootsSha256: hex.EncodeToString(endpoint.RootsDigest(row.GetWebRoots())),
		Etag:           Etag(row),
	}
	for _, path := range settings {
		if !strings.Contains(path, ".") {
			copySetting(out.ProtoReflect(), row.ProtoReflect(), path)
		}
	}
	if out.GetMaxStaleJwt() == nil && !row.GetStatic() {
		out.MaxStaleJwt = durationpb.New(DefaultMaxStaleJWT)
	}
	return out
}
