"""The live page of the admin port: what goes on this very second, for a person who would rather look than read.

It costs while somebody looks, and nothing but a note per request otherwise. Never a prompt, never a key.
"""
