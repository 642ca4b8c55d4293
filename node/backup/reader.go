package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
)

// intro begins every file that age encrypted.
const intro = "age-encryption.org/"

// maxIdentities bounds a file with identities.
const maxIdentities = 64 << 10

// ErrNoIdentity means that a snapshot is encrypted, and no identity was given.
var ErrNoIdentity = errors.New("the snapshot is encrypted: give the file with the age identity of one of its " +
	"recipients by --identity")

// Reader returns the snapshot in a file, decrypted if the file is encrypted. identities are those of the recipients.
func Reader(file io.Reader, identities []age.Identity) (io.Reader, error) {
	r := bufio.NewReader(file)
	begin, err := r.Peek(len(intro))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(begin, []byte(intro)) {
		return r, nil
	}
	if len(identities) == 0 {
		return nil, ErrNoIdentity
	}
	plain, err := age.Decrypt(r, identities...)
	if err != nil {
		return nil, fmt.Errorf("decrypt the snapshot: %w", err)
	}
	return plain, nil
}

// ReadIdentities reads a file of age identities, as age-keygen writes it.
func ReadIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	identities, err := age.ParseIdentities(io.LimitReader(f, maxIdentities))
	if err != nil {
		return nil, fmt.Errorf("%s holds no age identities: %w", path, err)
	}
	return identities, nil
}

// ParseRecipients parses age recipients, such as age1….
func ParseRecipients(texts []string) ([]age.Recipient, error) {
	var recipients []age.Recipient
	for _, text := range texts {
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(parsed) != 1 {
			return nil, fmt.Errorf("%q is no age recipient: write the public key that age-keygen prints, age1…", text)
		}
		recipients = append(recipients, parsed...)
	}
	return recipients, nil
}

// Encrypt returns a writer that encrypts to the recipients, or to itself if there are none. It must be closed.
func Encrypt(to io.Writer, recipients []age.Recipient) (io.WriteCloser, error) {
	if len(recipients) == 0 {
		return plain{to}, nil
	}
	return age.Encrypt(to, recipients...)
}

// plain is a writer that encrypts nothing.
type plain struct{ io.Writer }

// Close implements [io.Closer].
func (plain) Close() error { return nil }
