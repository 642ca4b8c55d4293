package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// maxSecretBytes is the size limit of a file with a secret.
const maxSecretBytes = 64 << 10

// Secret is the place of a secret. Its value is read when it is needed, never kept and never printed.
type Secret struct {
	source string // file:PATH, env:NAME, or the value itself
}

// String returns the place of the secret, or "(hidden)" if the configuration holds the value itself.
func (s Secret) String() string {
	if strings.HasPrefix(s.source, "file:") || strings.HasPrefix(s.source, "env:") {
		return s.source
	}
	return hidden
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// Read returns the secret without surrounding white space.
func (s Secret) Read() (string, error) {
	if path, ok := strings.CutPrefix(s.source, "file:"); ok {
		path, err := Credential(path)
		if err != nil {
			return "", fmt.Errorf("read secret %s: %w", s, err)
		}
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read secret: %w", err)
		}
		defer f.Close()
		raw, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
		switch {
		case err != nil:
			return "", fmt.Errorf("read secret: %w", err)
		case len(raw) > maxSecretBytes:
			return "", fmt.Errorf("read secret %s: larger than %d bytes", path, maxSecretBytes)
		}
		return nonEmpty(strings.TrimSpace(string(raw)), s)
	}
	if name, ok := strings.CutPrefix(s.source, "env:"); ok {
		return nonEmpty(strings.TrimSpace(os.Getenv(name)), s)
	}
	return s.source, nil
}

// credentialsVariable is set by systemd for a unit with LoadCredential, and credentialsPrefix is how a path names it.
const (
	credentialsVariable = "CREDENTIALS_DIRECTORY"
	credentialsPrefix   = "$" + credentialsVariable + "/"
)

// Credential replaces $CREDENTIALS_DIRECTORY at the beginning of a path by the folder with the credentials that systemd
// loaded for the unit. Other paths are returned as they are.
func Credential(path string) (string, error) {
	name, ok := strings.CutPrefix(path, credentialsPrefix)
	if !ok {
		return path, nil
	}
	dir := os.Getenv(credentialsVariable)
	if dir == "" {
		return "", fmt.Errorf("%s is not set: add LoadCredential=%s:PATH to the systemd unit, or write a path of this "+
			"machine", credentialsVariable, name)
	}
	return filepath.Join(dir, name), nil
}

func nonEmpty(value string, s Secret) (string, error) {
	if value == "" {
		return "", fmt.Errorf("read secret %s: it is empty", s)
	}
	return value, nil
}

// hidden stands for a secret that the configuration holds itself, where it is printed.
const hidden = "(hidden)"

func (b *block) secret(name string) Secret {
	s := Secret{source: b.text(name, "")}
	switch s.source {
	case "":
	case hidden:
		b.refuse(name, "%q is what 'entente validate --effective' prints instead of a secret; write the secret as "+
			"\"file:PATH\" or \"env:NAME\"", hidden)
	default:
		b.record(name, cty.StringVal(s.String()))
		if s.String() == hidden && b.literals != nil {
			*b.literals = append(*b.literals, s.source)
		}
	}
	return s
}
