package jwk

// MaxElements bounds the ASN.1 elements of all certificates of one document. crypto/x509 allocates some 200 bytes for
// an element of four, so a megabyte of names would take tens. An authority's certificate has some fifty elements, which
// allows more authorities than the 500 that fit into a document.
const MaxElements = 32 << 10

// maxDepth is the depth to which elements are counted; those of certificates are less than ten deep. Deeper content is
// counted by its bytes.
const maxDepth = 16

// long is the number of bytes of a primitive that count as one more element, for primitives that grow when they are
// parsed: each byte of an object identifier can become a number of eight bytes, and of a string in an old alphabet
// several characters. Most primitives in use are shorter.
const long = 12

// elements counts the ASN.1 elements in der, including those in the octet strings of extensions. It stops soon after
// most. Content that is not DER ends the count of its parent: crypto/x509 stops there too.
func elements(der []byte, most, depth int) (n int) {
	if depth == maxDepth {
		return min(len(der), most)
	}
	for len(der) > 0 && n < most {
		tag := der[0]
		content, rest, ok := element(der)
		n++
		if !ok {
			return n
		}
		const constructed, octetString, sequence = 0x20, 0x04, 0x30
		const identifier, teletexString, bmpString = 0x06, 0x14, 0x1e
		if tag == identifier || tag == teletexString || tag == bmpString {
			n += len(content) / long
		}
		if tag&constructed != 0 || tag == octetString && len(content) > 0 && content[0] == sequence {
			n += elements(content, most-n, depth+1)
		}
		der = rest
	}
	return n
}

// element splits the first element of der from the rest, and returns its content.
func element(der []byte) (content, rest []byte, ok bool) {
	if len(der) < 2 || der[0]&0x1f == 0x1f {
		return nil, nil, false
	}
	length, header := int(der[1]), 2
	if length >= 0x80 {
		more := length & 0x7f
		if more == 0 || more > 4 || len(der) < 2+more {
			return nil, nil, false
		}
		length = 0
		for _, b := range der[2 : 2+more] {
			length = length<<8 | int(b)
		}
		header += more
	}
	if length > len(der)-header {
		return nil, nil, false
	}
	return der[header : header+length], der[header+length:], true
}
