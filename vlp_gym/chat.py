"""A language model behind an OpenAI-compatible endpoint: one question, one answer."""

import os
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from vlp_gym.errors import EndpointError

BUSY = (429, 500, 502, 503, 504)
"""Answers of a service that may serve a moment later."""
WAITS_S = (2.0, 10.0, 30.0)
"""Seconds before each time that a busy service is asked again."""

CURES = {
    **dict.fromkeys(
        (401, 403),
        "put a key of this service into the environment variable that --api-key-env names "
        "(OPENAI_API_KEY when it is left out)",
    ),
    404: "look whether the service has that --model and whether --endpoint is whole; it usually ends in /v1",
    **dict.fromkeys(BUSY, "run the same command again later, it goes on from there"),
}
"""What to do about a status of HTTP."""
SHOWN = 300
"""Characters of a service's own words in an error."""


@dataclass(frozen=True)
class ChatModel:
    """A model that answers in chat completions.

    Attributes:
        endpoint: base URL of the service, such as http://localhost:8000/v1.
        name: what the service calls the model.
        api_key_env: environment variable that holds the key; unset, requests carry none. The key itself is read for
            every request and is in no object, file or message.
        timeout_s: seconds that the service may say nothing.
    """

    endpoint: str
    name: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0

    @property
    def address(self) -> str:
        """The endpoint without what may be secret: user, password and query.

        >>> ChatModel("https://me:secret@host/v1?key=secret", "any").address
        'https://host/v1'
        """
        return str(self._url().copy_with(userinfo=b"", query=None))

    def ask(self, question: str) -> str:
        """Return the answer to a question; a busy service is asked again a few times.

        Raises:
            EndpointError: the service cannot be reached, refuses, or speaks something else.
        """
        message = {"role": "user", "content": question}
        address, key = self.address, self._key()
        try:
            response = self._post({"model": self.name, "messages": [message]}, key)
        except httpx2.TimeoutException as error:
            raise EndpointError(
                f"{address} said nothing for {self.timeout_s:g} s; raise --timeout-s or ask for fewer sentences"
            ) from error
        except httpx2.HTTPError as error:
            raise EndpointError(
                f"cannot ask {address}: {error}; look whether the service runs and --endpoint is its URL"
            ) from error
        if not response.is_success:
            cure = CURES.get(response.status_code, "look whether --endpoint and --model are right")
            raise EndpointError(
                f"{address} answers {response.status_code}: {_said(response, key)}; {cure}"
            )
        return self._content(response)

    def _url(self) -> httpx2.URL:
        try:
            return httpx2.URL(self.endpoint)
        except httpx2.InvalidURL as error:
            raise EndpointError("--endpoint is no URL; one is http://localhost:8000/v1") from error

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise EndpointError("the API key is not one line of plain characters; set it anew")
        return key

    def _post(self, body: dict[str, Any], key: str) -> httpx2.Response:
        url = self._url()
        url = url.copy_with(path=url.path.rstrip("/") + "/chat/completions")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx2.Client(headers=headers, timeout=self.timeout_s) as client:
            response = client.post(url, json=body)
            for wait_s in WAITS_S:
                if response.status_code not in BUSY:
                    break
                time.sleep(wait_s)
                response = client.post(url, json=body)
        return response

    def _content(self, response: httpx2.Response) -> str:
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise EndpointError(
                f"{self.address} does not answer in chat completions; look whether --endpoint is whole, "
                "it usually ends in /v1"
            ) from error
        # What a model refuses to say is null.
        return content if isinstance(content, str) else ""


def _said(response: httpx2.Response, key: str) -> str:
    text = " ".join(response.text.split())
    # A dummy key, such as "x", is no secret, and cutting it out would leave nothing to read.
    return (text.replace(key, "***") if len(key) > 7 else text)[:SHOWN] or "nothing"
