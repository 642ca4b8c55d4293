package token

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Prefixes of the kinds of tokens, with the version of the format of each.
const (
	JoinPrefix       = "entente-join-1-"
	InvitationPrefix = "entente-federate-1-"
	AgentPrefix      = "entente-agent-1-"
)

// publicPrefix comes before the prefix of the token in the text of a public part.
const publicPrefix = "public-"

// Public returns the public part of a token, which is its text without the secret. [Join] makes the token of it.
func Public(prefix string, content proto.Message) (string, error) {
	public := proto.Clone(content)
	public.ProtoReflect().Clear(secretField(public))
	return Encode(publicPrefix+prefix, public)
}

// Join returns the token of a public part and the secret whose digest its maker has stored. Its errors contain no part
// of the secret.
func Join(public string, secret []byte) (string, error) {
	if len(secret) != len(Secret{}) {
		return "", fmt.Errorf("the secret has %d bytes, and that of a token has %d", len(secret), len(Secret{}))
	}
	public = strings.TrimSpace(public)
	for prefix, content := range map[string]proto.Message{
		JoinPrefix: &statev1.JoinTokenContent{}, InvitationPrefix: &statev1.InvitationContent{},
		AgentPrefix: &statev1.AgentTokenContent{},
	} {
		if !strings.HasPrefix(public, publicPrefix+prefix) {
			continue
		}
		if err := Decode(publicPrefix+prefix, public, content); err != nil {
			return "", fmt.Errorf("read the public part: %w", err)
		}
		content.ProtoReflect().Set(secretField(content), protoreflect.ValueOfBytes(secret))
		return Encode(prefix, content)
	}
	return "", fmt.Errorf("read the public part: it begins with none of %q, %q and %q: %w",
		publicPrefix+InvitationPrefix, publicPrefix+JoinPrefix, publicPrefix+AgentPrefix, ErrNotAToken)
}

func secretField(content proto.Message) protoreflect.FieldDescriptor {
	return content.ProtoReflect().Descriptor().Fields().ByName("secret")
}

// Chosen is the secret of a token that is about to be made: either its digest alone, which the caller gave, or the
// secret itself.
type Chosen struct {
	digest [32]byte
	secret *Secret
}

// Choose returns the secret with the digest in the field secret_sha256 of a request, or a new one if that is empty. The
// error has a status.
func Choose(digest []byte) (Chosen, error) {
	var c Chosen
	switch len(digest) {
	case len(c.digest):
		c.digest = [32]byte(digest)
		return c, nil
	case 0:
		s := NewSecret()
		return Chosen{s.Digest(), &s}, nil
	}
	return c, status.Errorf(codes.InvalidArgument, "secret_sha256 has %d bytes, and a SHA-256 has 32: send the digest "+
		"of 32 random bytes, or leave it out", len(digest))
}

// Digest returns the digest, to be stored.
func (c Chosen) Digest() []byte { return c.digest[:] }

// Text returns the text of the token with a content that has no secret. It is empty if only the digest of the secret is
// known.
func (c Chosen) Text(prefix string, content proto.Message) (string, error) {
	public, err := Public(prefix, content)
	if err != nil || c.secret == nil {
		return "", err
	}
	return Join(public, c.secret[:])
}
